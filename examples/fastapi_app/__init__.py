"""A web application that leaves slow work to tasks."""
