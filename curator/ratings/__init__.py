"""What people said when two captions were shown to them blind."""
