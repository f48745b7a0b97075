/* libFuzzer's door to fec_ingress.pyx: an interpreter that starts once, and then is out of the way. */
#include <Python.h>
#include <stdio.h>
#include <stdlib.h>

static const char *(*one_input)(const uint8_t *bytes, size_t count);

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    PyObject *module, *capsule = NULL;
    (void)count, (void)arguments;
    Py_Initialize();
    module = PyImport_ImportModule("fec_ingress");
    if (module)
        capsule = PyObject_GetAttrString(module, "one_input_capsule");
    if (capsule)
        one_input = PyCapsule_GetPointer(capsule, "fec_ingress.one_input");
    if (!one_input) {
        PyErr_Print();
        exit(1);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    const char *broken = one_input(bytes, count);
    if (broken) {
        fprintf(stderr, "fec_ingress: %s\n", broken);
        abort();
    }
    return 0;
}
