"""Bytes that no provider should send, by hypothesis (``test_bytes.py``) and by atheris (``wire_atheris.py``)."""
