// Weights come as a stream; those in the code itself (mem_mode internal_embedded) have no type here.
#pragma once
