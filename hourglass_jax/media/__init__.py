"""Reading and writing of pictures and videos, and drawing."""
