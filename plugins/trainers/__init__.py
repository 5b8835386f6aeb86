"""Trainers: fit a model to a text. (torch)"""
