"""``embedded://DIR``: Faust on a local segmented log, no broker."""
