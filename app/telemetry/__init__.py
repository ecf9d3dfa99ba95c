"""What the front end shows about itself: metrics, request ids, health."""
