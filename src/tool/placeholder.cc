#include "platter/error.h"
