"""Single operations, each as plain JAX and in forms that are faster on one platform.

All forms of an operation have equal values and gradients, up to rounding. Models call the operation and do
not depend on its forms; `platforms` says for which platform a program is traced.
"""
