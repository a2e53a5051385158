"""Reading logs back."""
