// A machine on its memory, with a free-running clock. Python loads, starts, waits, and dumps:
// it touches the signals marked public, and none of them while the machine runs.
//
// Memory: the image, of +words=N words; what follows it reads as zero and is not to be written (a
// reader may run ahead of its stream's end). One request a cycle, responses in order, +latency=N cycles
// (1 to 63, by default 4) after the request was accepted. With +stall=N the port refuses a request in N of 256 cycles at random.
// Files are big-endian a word when loaded; a dump has words as $fwrite("%u") writes them:
// 32-bit pieces, lowest first.

`timescale 1ns / 1ps

module bench #(
    parameter PORT_BITS = 64,
    parameter ADDRESS_BITS = 24,
    parameter MEMORY_BITS = 16,  // log2 of the words of the memory
    parameter CODE_BITS = 4,
    parameter LAYER_BITS = 16,
    parameter LANE_BITS = 4,
    parameter POSITION_BITS = 32,
    parameter RESET = 1  // 0: the machine begins with its initial values alone, which is faster
);
  localparam WORDS = 1 << MEMORY_BITS;

  // Python's side
  reg rst  /* verilator public_flat_rw */ = 1;
  reg go  /* verilator public_flat_rw */ = 0;  // rises: start the machine
  reg load  /* verilator public_flat_rw */ = 0;  // rises: read +load
  reg dump  /* verilator public_flat_rw */ = 0;  // rises: write +dump
  reg [31:0] program_address  /* verilator public_flat_rw */ = 0;
  reg [63:0] limit  /* verilator public_flat_rw */ = 64'hffff_ffff_ffff_ffff;
  reg finished  /* verilator public_flat_rw */ = 0;  // done, error, fault or timeout
  reg [63:0] cycles  /* verilator public_flat_rw */ = 0;  // from start to done
  reg was_done  /* verilator public_flat_rw */ = 0;
  reg was_error  /* verilator public_flat_rw */ = 0;
  reg outside  /* verilator public_flat_rw */ = 0;  // an address beyond the memory
  reg refused  /* verilator public_flat_rw */ = 0;  // a response that was not taken
  reg [31:0] bad_address  /* verilator public_flat_rw */ = 0;
  reg [31:0] code  /* verilator public_flat_rw */ = 0;
  reg [31:0] layer  /* verilator public_flat_rw */ = 0;
  reg [31:0] lane  /* verilator public_flat_rw */ = 0;
  reg [31:0] position  /* verilator public_flat_rw */ = 0;

  // The machine. Its inputs are registers that only the clock changes: were Python's signals its
  // inputs, Verilator would evaluate all that depends on them once more in every cycle.
  reg clk = 0;
  reg machine_rst = 1;
  reg [ADDRESS_BITS-1:0] machine_program = 0;
  reg start = 0;
  reg stall = 0;
  wire request_valid, response_ready, ready, done, error;
  wire request_ready = !stall;
  wire [ADDRESS_BITS+PORT_BITS:0] request;
  reg response_valid = 0;
  reg [PORT_BITS-1:0] response = 0;
  wire [CODE_BITS-1:0] error_code;
  wire [LAYER_BITS-1:0] error_layer;
  wire [LANE_BITS-1:0] error_lane;
  wire [POSITION_BITS-1:0] error_position;

  thresher machine (
      .clk(clk),
      .rst(RESET != 0 && machine_rst),
      .start(start),
      .program_address(machine_program),
      .ready(ready),
      .done(done),
      .error(error),
      .error_code(error_code),
      .error_layer(error_layer),
      .error_lane(error_lane),
      .error_position(error_position),
      .request__payload(request),
      .request__valid(request_valid),
      .request__ready(request_ready),
      .response__payload(response),
      .response__valid(response_valid),
      .response__ready(response_ready)
  );

  always #5 clk = !clk;

  // The memory
  reg [PORT_BITS-1:0] memory[0:WORDS-1];
  reg [PORT_BITS-1:0] line[0:63];  // responses on their way, a ring
  reg [63:0] line_valid = 0;
  reg [5:0] now = 0;
  reg [5:0] latency = 4;
  reg [7:0] stalls = 0;
  reg [31:0] noise = 32'h1;
  reg [31:0] words;
  wire [ADDRESS_BITS-1:0] address = request[ADDRESS_BITS-1:0];
  wire write = request[ADDRESS_BITS];
  wire in_range = (address >> MEMORY_BITS) == 0;
  wire in_image = address < words;
  wire [PORT_BITS-1:0] word = in_image ? memory[address[MEMORY_BITS-1:0]] : {PORT_BITS{1'b0}};
  wire [5:0] due = now - latency + 6'd1;

  integer setting;
  initial begin
    if (!$value$plusargs("words=%d", words)) words = 0;
    if ($value$plusargs("latency=%d", setting)) latency = setting[5:0];
    if ($value$plusargs("stall=%d", setting)) stalls = setting[7:0];
  end

  always @(posedge clk) begin
    machine_rst <= rst;
    machine_program <= program_address[ADDRESS_BITS-1:0];
  end

  always @(posedge clk) begin
    now <= now + 6'd1;
    line_valid[now] <= request_valid && request_ready && !write && !machine_rst;
    if (request_valid && request_ready && !machine_rst) begin
      if (!in_range || (write && !in_image)) begin
        outside <= 1;
        bad_address <= address;
      end else if (write) memory[address[MEMORY_BITS-1:0]] <= request[ADDRESS_BITS+1+:PORT_BITS];
      else line[now] <= word;
    end
    // A latency of one is a response on the next edge: it cannot go through the ring.
    if (latency == 6'd1) begin
      response_valid <= request_valid && request_ready && !write && !machine_rst;
      response <= word;
    end else begin
      response_valid <= line_valid[due];
      response <= line[due];
    end
    if (response_valid && !response_ready && !machine_rst) refused <= 1;
    if (stalls != 0) begin
      noise <= {noise[30:0], noise[31] ^ noise[21] ^ noise[1] ^ noise[0]};
      stall <= noise[7:0] < stalls;
    end
  end

  // Start to done
  reg running = 0;
  reg started = 0;
  reg [63:0] patience = 0;
  always @(posedge clk) begin
    if (!started && patience >= limit) finished <= 1;  // never ready
    if (!started && go) patience <= patience + 64'd1;
    start <= go && ready && !started;
    if (go && ready) started <= 1;
    if (start) running <= 1;
    if (start || running) cycles <= cycles + 64'd1;
    if (running && !finished) begin
      if (done || error || outside || refused || cycles >= limit) begin
        finished <= 1;
        running <= 0;
        was_done <= done;
        was_error <= error;
        code <= error_code;
        layer <= error_layer;
        lane <= error_lane;
        position <= error_position;
      end
    end
  end

  // Files
  reg [8*1024-1:0] path;
  integer file, count, index;
  always @(posedge load) begin
    if ($value$plusargs("load=%s", path)) begin
      file = $fopen(path, "rb");
      count = $fread(memory, file);
      $fclose(file);
    end
  end
  always @(posedge dump) begin
    if ($value$plusargs("dump=%s", path)) begin
      file = $fopen(path, "wb");
      for (index = 0; index < words; index = index + 1) $fwrite(file, "%u", memory[index]);
      $fclose(file);
    end
  end
endmodule
