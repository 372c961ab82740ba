"""The dashboard for inspecting, reviewing and comparing captions."""
