"""When things happen: nodes, links, failures and strategies on one simulated clock."""
