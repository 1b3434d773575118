"""Seeds by the million: campaigns that are resumed, spread over processes or a cluster, guided, grouped, shrunk."""
