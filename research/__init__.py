"""The laboratory: what answers our own questions about Hadaptive-Net; not a part of the wheel."""
