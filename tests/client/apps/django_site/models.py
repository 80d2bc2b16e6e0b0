"""Who may log in. There is no table behind it."""

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import models


class Visitor(AbstractBaseUser):
    name = models.CharField(max_length=100, primary_key=True)
    last_login = None
    USERNAME_FIELD = "name"
