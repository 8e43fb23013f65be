#define ENTPROP_ISA entprop::avx2
#include "table.h"
