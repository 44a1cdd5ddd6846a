"""A spinning LiDAR, the streets that it scans, and a network that finds the cars from above."""
