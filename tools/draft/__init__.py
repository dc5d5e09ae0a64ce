"""The draft network that comes with the program: learnt from the original VGG-19, and judged by it."""
