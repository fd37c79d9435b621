"""Promises about a policy: what is proved for all inputs, what is only tested, and the certificate of it. Pure."""
