"""What every test shares: a real service, a provider, hypothesis without deadlines, the rule on skips under CI."""

import os

import hypothesis

pytest_plugins = ["harness", "skips"]  # in tests/lib

# A busy machine is no failure, hence no deadline; under CI the same change must give the same result twice.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")
