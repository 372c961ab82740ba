"""The caption inspection dashboard; not built yet."""
