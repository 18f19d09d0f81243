"""What runs in the process of the program: it knows the standard library only and nothing of the project."""
