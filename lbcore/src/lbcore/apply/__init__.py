"""Bring the mirror to the planned state, in four phases; each batch is durable before it is marked.

``lift`` (lift out and remove), ``place`` (make, set down, link), ``content``, ``attributes``.
"""
