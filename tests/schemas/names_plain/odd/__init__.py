__all__ = ['ttypes', 'constants', 'Odd']
