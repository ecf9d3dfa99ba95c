"""What the front end tells about itself: metrics, request ids, health."""
