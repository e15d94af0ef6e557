"""Django set up, and the `tasks` modules of its applications imported: `fastworker start` with this as module.

`DJANGO_SETTINGS_MODULE` says which project.
"""

import django
from django.utils.module_loading import autodiscover_modules

django.setup()
autodiscover_modules("tasks")
