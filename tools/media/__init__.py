"""What serves every tool with files: pictures, sheets and plots, and what they tell of themselves."""
