"""Settings of the tests of sage.supervisor."""

from hypothesis import settings

settings.register_profile("sage", deadline=None)  # a busy machine is no failure
settings.load_profile("sage")
