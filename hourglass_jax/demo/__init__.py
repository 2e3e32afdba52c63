"""A local page that finds joints in pictures, films and before a camera: hourglass demo"""
