"""Real-time perturbation of a command, as a measuring instrument: how easily is one's own model led astray?

For testing one's own models. Everything here works on recordings and models that are at hand as files; nothing
speaks to a service, and nothing is aimed at a third party's.

The scheme is that of arXiv 1905.13399 (real-time adversarial attack): somebody plays a command and, on top of it,
a few short pulses whose moments are chosen while the command is heard, from the past alone.
"""
