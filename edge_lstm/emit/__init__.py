"""Writers: integers in, text or bytes out; the same input gives the same bytes."""
