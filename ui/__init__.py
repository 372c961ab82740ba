"""The caption inspection dashboard."""
