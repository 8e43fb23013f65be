#define ENTPROP_ISA entprop::portable
#include "prime_loops.h"
