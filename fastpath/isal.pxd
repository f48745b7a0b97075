"""ISA-L's erasure coding. Where it was missing at build time nothing here may be called: ISAL_PRESENT is 0.

What ec_init_tables writes is the library's own (32 bytes a coefficient up to 2.30, 8 from 2.31 on where the processor
has GFNI), so tables are never cut or copied; only their first rows may be used alone.
"""

cdef extern from * nogil:
    """
    #ifdef L45_ISAL
    #include <isa-l/erasure_code.h>
    #define ISAL_PRESENT 1
    #else
    #define ISAL_PRESENT 0
    #define ec_init_tables(k, rows, coefficients, tables) ((void) (tables))
    #define ec_encode_data_update(bytes, k, rows, index, tables, source, sums) ((void) (index))
    #endif
    """
    enum:
        ISAL_PRESENT
    void ec_init_tables(int k, int rows, unsigned char *coefficients, unsigned char *tables)
    void ec_encode_data_update(int bytes, int k, int rows, int index, unsigned char *tables, unsigned char *source,
                               unsigned char **sums)
