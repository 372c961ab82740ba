"""The caption inspection dashboard (Streamlit)."""
