"""What a run costs before it starts: bytes on every device, floating-point operations."""
