"""The strategy map: over two fields of a scenario, which strategy reaches the target loss first, or cheapest."""
