// What a flush is for.
#pragma once

namespace platter::block {

class Node;

// A backend skips a flush where nothing was written since the last one. A driver that has written
// what no request brought it (the state of a machine, a change of its tables) says so here, when it
// has. Any thread.
void note_written(Node& node);

}  // namespace platter::block
