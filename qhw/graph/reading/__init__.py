"""Files in: parsed, bounded and checked, then brought into one normal form whatever exporter wrote them."""
