"""libsodium's SipHash-2-4. Where it was missing at build time nothing here may be called: SODIUM_PRESENT is 0.

It is a pure function, and needs no sodium_init, which would look for random numbers.
"""

cdef extern from * nogil:
    """
    #ifdef L45_SODIUM
    #include <sodium/crypto_shorthash.h>
    #define SODIUM_PRESENT 1
    #else
    #define SODIUM_PRESENT 0
    #define crypto_shorthash(check, bytes, count, key) ((void) (bytes), (void) (key), -1)
    #endif
    """
    enum:
        SODIUM_PRESENT
    int crypto_shorthash(unsigned char *check, const unsigned char *bytes, unsigned long long count,
                         const unsigned char *key)
