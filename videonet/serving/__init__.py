"""A page and an HTTP API over trained models, and a look at data sets on the same page.

Uploads come from anybody: they are decoded in processes that may crash or hang, within
:class:`~videonet.serving.limits.Limits`, and deleted before the answer is sent.
"""
