"""How the draft network was made, and how it is judged. Nothing here is needed to use it."""
