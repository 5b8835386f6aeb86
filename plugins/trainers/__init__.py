"""How a model is fitted. (torch)"""
