"""The metric catalogue, as tables: base units, labels out of closed sets only; what can be 0 is shown as 0 at once."""
