"""The chat page (`make ui`, extra `ui`): Streamlit over `citewell.client`, so HTTP only."""
