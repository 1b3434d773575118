"""One HTTP/1.1 request and its answer: the client below everything that we say to others (docs/delivery.md)."""
