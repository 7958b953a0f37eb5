"""The chat page (`make ui`, extra `ui`): Streamlit over `citewell.client`, so it uses only HTTP."""
