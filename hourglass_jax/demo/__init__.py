"""A local page that finds joints in pictures, videos and camera images: hourglass demo"""
