"""Recurrent networks over symbols. (torch)"""
