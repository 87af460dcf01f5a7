"""How documents come in: calls of the operator, which are answered with what is true, and the mounted ConfigMap."""
