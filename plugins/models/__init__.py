"""Models: recurrent networks over symbols. (torch)"""
