"""Questions for agents: the Model Context Protocol, over one or several opened indexes."""
